"""libFuzzer on each C kernel, with AddressSanitizer and UndefinedBehaviorSanitizer: `make fuzz`.

A target is one file here; its corpus is the folder of that name in corpus/.
"""
