/* Numerals in a text, as Lua's io reads them (format "n"). */
#ifndef URING_NUMERAL_H
#define URING_NUMERAL_H

#include <stdbool.h>
#include <stddef.h>

#define NUMERAL_MAX 200 /* characters, as in liolib.c */

struct numeral {
  size_t consumed; /* bytes that belong to it, or were skipped */
  bool complete;   /* false: more bytes are needed to tell where it ends */
  unsigned size;
  char text[NUMERAL_MAX + 1]; /* ends with a zero; what lua_stringtonumber
                                 may find to be none */
};

/* Reads what might be a numeral at the start of `bytes`.  `ended`: nothing
** comes after them. */
void numeral_read(struct numeral *n, const unsigned char *bytes, size_t size,
                  bool ended);

#endif
