/* From the identifier of an ISA, which its file defines, to the names of its table. */
#ifndef SMESIM_NAME_H
#define SMESIM_NAME_H

#define SMS_JOIN_(a, b) a##b
#define SMS_JOIN(a, b) SMS_JOIN_(a, b)
#define SMS_NAME_(name) #name
#define SMS_NAME(name) SMS_NAME_(name)

#endif
