/* Numerals, by the rules of l_read_number in liolib.c: up to 200 characters
** that could be one, and one that is looked at and left.
*/
#include "numeral.h"

#include <ctype.h>
#include <locale.h>

/* Where reading is.  `c` is -1 behind the last byte. */
struct reading {
  struct numeral *n;
  const unsigned char *at, *end;
  int c;
};

static void look(struct reading *r)
{
  r->c = r->at < r->end ? *r->at : -1;
}

/* Takes the character; where there is no room for it nothing more is taken,
** and what has been is no numeral. */
static bool take(struct reading *r)
{
  struct numeral *n = r->n;
  if (n->size >= NUMERAL_MAX) {
    n->text[0] = '\0';
    return false;
  }
  n->text[n->size++] = (char)r->c;
  r->at++;
  look(r);
  return true;
}

static bool take_either(struct reading *r, const char set[2])
{
  if (r->c >= 0 && (r->c == set[0] || r->c == set[1]))
    return take(r);
  return false;
}

static unsigned take_digits(struct reading *r, bool hex)
{
  unsigned n = 0;
  while (r->c >= 0 && (hex ? isxdigit(r->c) : isdigit(r->c)) && take(r))
    n++;
  return n;
}

static void read_digits(struct reading *r)
{
  const char point[2] = {localeconv()->decimal_point[0], '.'};
  unsigned count = 0;
  bool hex = false;
  take_either(r, "-+");
  if (take_either(r, "00")) {
    if (take_either(r, "xX"))
      hex = true;
    else
      count = 1;
  }
  count += take_digits(r, hex);
  if (take_either(r, point))
    count += take_digits(r, hex);
  if (count > 0 && take_either(r, hex ? "pP" : "eE")) {
    take_either(r, "-+");
    take_digits(r, false);
  }
}

void numeral_read(struct numeral *n, const unsigned char *bytes, size_t size,
                  bool ended)
{
  struct reading r = {n, bytes, bytes + size, -1};
  n->size = 0;
  while (r.at < r.end && isspace(*r.at))
    r.at++;
  look(&r);
  read_digits(&r);
  n->consumed = (size_t)(r.at - bytes);
  n->complete = ended || r.at < r.end || n->size >= NUMERAL_MAX;
  n->text[n->size] = '\0';
}
