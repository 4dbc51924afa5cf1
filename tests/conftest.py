"""For all tests: how long an example of Hypothesis takes is for benchmarks to tell, so none has a deadline."""

from hypothesis import settings

settings.register_profile("msm_fast", deadline=None)
settings.load_profile("msm_fast")
