"""What differs from machine to machine: the device, its fast functions, the BLAS library."""
