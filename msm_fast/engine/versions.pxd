cpdef object version(object life, object cas)
cpdef object cas_of(object version)
cpdef object life_of(object version)
