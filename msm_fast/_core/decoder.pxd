# A name's registration is decode. Reading a dict is atomic, so no lock is needed.
cdef dict decoders


cdef object decode_value(const unsigned char *buf, Py_ssize_t start, Py_ssize_t end)
