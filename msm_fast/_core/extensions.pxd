# The codec's extension types, how deep its values may be nested, and how large the parts of a Fraction may be. What the
# types hold: codec.pyx.
#
# A Fraction is brought to its lowest terms when it is read, which takes the square of its size: with half a million
# bytes in each part a quarter of a minute, in which nothing else runs. Up to 4096 bits it costs no more for each byte
# than the smallest of them do, so that no body is slower to read for being made of large ones.

cdef enum:
    DEPTH_LIMIT = 64
    FRACTION_BITS_MAX = 4096
    EXT_INT = 1
    EXT_COMPLEX = 2
    EXT_BYTEARRAY = 3
    EXT_TUPLE = 4
    EXT_SET = 5
    EXT_FROZENSET = 6
    EXT_DATETIME = 7
    EXT_DATE = 8
    EXT_TIME = 9
    EXT_TIMEDELTA = 10
    EXT_DECIMAL = 11
    EXT_FRACTION = 12
    EXT_UUID = 13
    EXT_REGISTERED = 14
