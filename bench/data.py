#!/usr/bin/python3
"""Writes the files that the benchmark's real programs work on; always the same.

Usage: bench/data.py DIRECTORY
"""
import os
import random
import sys

TEXT = 6 << 20
BLOB = 24 << 20
FUNCTIONS = 30

LUA = """\
local function queens(n)
  local found, column, up, down = 0, {}, {}, {}
  local function place(row)
    if row > n then found = found + 1 return end
    for c = 1, n do
      if not (column[c] or up[row + c] or down[row - c + n]) then
        column[c], up[row + c], down[row - c + n] = true, true, true
        place(row + 1)
        column[c], up[row + c], down[row - c + n] = nil, nil, nil
      end
    end
  end
  place(1)
  return found
end
assert(queens(9) == 352)
local words = {}
for i = 1, 60000 do
  local key = ("%x"):format(i * 2654435761 % 65536):reverse()
  words[key] = (words[key] or 0) + #key
end
local list = {}
for key, count in pairs(words) do list[#list + 1] = key .. count end
table.sort(list)
assert(#list > 1000)
"""

SQL = """\
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, kind INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
INSERT INTO item SELECT i, 'item ' || (i * 7919 % 40009), i * 37 % 1000 / 10.0, i % 97 FROM n;
CREATE INDEX item_name ON item (name);
SELECT kind, count(*), avg(price), max(name) FROM item GROUP BY kind ORDER BY 3 LIMIT 5;
SELECT count(*) FROM item a JOIN item b ON b.name = 'item ' || a.id WHERE a.price > b.price;
UPDATE item SET price = price * 1.1 WHERE name LIKE '%9%';
SELECT sum(price), count(DISTINCT name) FROM item;
"""


def text(rng):
    """Lines of words, some of them much more frequent than others."""
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    words = ["".join(letters[min(int(rng.expovariate(0.18)), 25)] for _ in range(rng.randint(1, 10)))
             for _ in range(20000)]
    out, size = [], 0
    while size < TEXT:
        line = " ".join(words[min(int(rng.paretovariate(0.6)), len(words)) - 1]
                        for _ in range(rng.randint(4, 14)))
        out.append(line)
        size += len(line) + 1
    return "\n".join(out) + "\n"


def c_function(rng, number):
    """A function with loops, branches, a switch and calls of the functions before it."""
    callee = f"f{rng.randrange(number)}(x + i)" if number else "x"
    cases = "\n".join(f"        case {n}: y = y * {rng.randint(3, 99)} + t[(x + {n}) & 63]; break;"
                      for n in range(8))
    return f"""
unsigned f{number}(unsigned x)
{{
    unsigned y = {rng.randint(1, 9999)}u, t[64];

    for (unsigned i = 0; i < 64; i++)
        t[i] = (x ^ i) * {rng.randint(3, 9999)}u;
    for (unsigned i = 0; i < (x & {rng.randint(3, 31)}); i++) {{
        switch ((x >> i) & 7) {{
{cases}
        }}
        if ((y & {rng.randint(1, 255)}) == {rng.randint(0, 7)})
            y ^= {callee};
        else
            y += (unsigned)((double)y * {rng.random():.4f});
    }}
    return y + t[y & 63];
}}
"""


def main():
    where = sys.argv[1]
    rng = random.Random(1974)
    os.makedirs(where, exist_ok=True)
    functions = [c_function(rng, n) for n in range(FUNCTIONS)]
    files = {
        "text": text(rng).encode(),
        "blob": rng.randbytes(BLOB),
        "large.c": "".join(functions).encode(),
        "work.lua": LUA.encode(),
        "work.sql": SQL.encode(),
    }
    for name, content in files.items():
        with open(os.path.join(where, name), "wb") as out:
            out.write(content)


if __name__ == "__main__":
    main()
