# The extension types of the codec, and how deep its values may be nested. What they hold: codec.pyx.

cdef enum:
    DEPTH_LIMIT = 64
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
