# The payloads of date, time, datetime and timedelta, without the zone. Code that cimports this calls
# import_datetime() first.
#
#   date       u16 year, u8 month, u8 day
#   time       u8 hour, u8 minute, u8 second, u8 fold, u32 microsecond
#   datetime   date, then time
#   timedelta  i32 days, u32 seconds, u32 microseconds

from cpython.datetime cimport (
    PyDateTime_DATE_GET_FOLD,
    PyDateTime_DATE_GET_HOUR,
    PyDateTime_DATE_GET_MICROSECOND,
    PyDateTime_DATE_GET_MINUTE,
    PyDateTime_DATE_GET_SECOND,
    PyDateTime_DELTA_GET_DAYS,
    PyDateTime_DELTA_GET_MICROSECONDS,
    PyDateTime_DELTA_GET_SECONDS,
    PyDateTime_GET_DAY,
    PyDateTime_GET_MONTH,
    PyDateTime_GET_YEAR,
    PyDateTime_TIME_GET_FOLD,
    PyDateTime_TIME_GET_HOUR,
    PyDateTime_TIME_GET_MICROSECOND,
    PyDateTime_TIME_GET_MINUTE,
    PyDateTime_TIME_GET_SECOND,
    date_new,
    datetime_new,
    time_new,
    timedelta_new,
)
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from msm_fast._core.c_msgpack cimport msm_big_endian_read, msm_big_endian_write


cdef enum:
    DATE_SIZE = 4
    TIME_SIZE = 8
    DATETIME_SIZE = 12
    TIMEDELTA_SIZE = 12


cdef inline void store_date(object value, uint8_t *out) noexcept:
    msm_big_endian_write(PyDateTime_GET_YEAR(value), 2, out)
    out[2] = PyDateTime_GET_MONTH(value)
    out[3] = PyDateTime_GET_DAY(value)


cdef inline void store_time(object value, uint8_t *out) noexcept:
    out[0] = PyDateTime_TIME_GET_HOUR(value)
    out[1] = PyDateTime_TIME_GET_MINUTE(value)
    out[2] = PyDateTime_TIME_GET_SECOND(value)
    out[3] = PyDateTime_TIME_GET_FOLD(value)
    msm_big_endian_write(PyDateTime_TIME_GET_MICROSECOND(value), 4, out + 4)


cdef inline void store_datetime(object value, uint8_t *out) noexcept:
    store_date(value, out)
    out[4] = PyDateTime_DATE_GET_HOUR(value)
    out[5] = PyDateTime_DATE_GET_MINUTE(value)
    out[6] = PyDateTime_DATE_GET_SECOND(value)
    out[7] = PyDateTime_DATE_GET_FOLD(value)
    msm_big_endian_write(PyDateTime_DATE_GET_MICROSECOND(value), 4, out + 8)


cdef inline void store_timedelta(object value, uint8_t *out) noexcept:
    msm_big_endian_write(<uint32_t> PyDateTime_DELTA_GET_DAYS(value), 4, out)
    msm_big_endian_write(PyDateTime_DELTA_GET_SECONDS(value), 4, out + 4)
    msm_big_endian_write(PyDateTime_DELTA_GET_MICROSECONDS(value), 4, out + 8)


# The constructors of the datetime API check their fields: ValueError or OverflowError.
cdef inline object load_date(const uint8_t *at):
    return date_new(<int> msm_big_endian_read(at, 2), at[2], at[3])


cdef inline object load_time(const uint8_t *at, object zone):
    return time_new(at[0], at[1], at[2], <int32_t> msm_big_endian_read(at + 4, 4), zone, at[3])


cdef inline object load_datetime(const uint8_t *at, object zone):
    return datetime_new(
        <int> msm_big_endian_read(at, 2), at[2], at[3],
        at[4], at[5], at[6], <int32_t> msm_big_endian_read(at + 8, 4), zone, at[7],
    )


# A timedelta carries what is too much over to the days instead: then it would have two forms.
cdef inline object load_timedelta(const uint8_t *at):
    cdef uint64_t seconds = msm_big_endian_read(at + 4, 4)
    cdef uint64_t microseconds = msm_big_endian_read(at + 8, 4)
    if seconds >= 24 * 3600 or microseconds >= 1_000_000:
        raise ValueError("a timedelta of more seconds than a day has, or microseconds than a second")
    return timedelta_new(<int32_t> msm_big_endian_read(at, 4), <int32_t> seconds, <int32_t> microseconds)
