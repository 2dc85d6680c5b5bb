"""The Lua scripts of `RedisStore`. Redis runs each of them as one atomic step.

A conversation has four keys, which every script gets as ``KEYS``:

1. *head*, a hash: ``token``, ``owner`` and ``until`` of the lease; from the first append on also
   ``base``, ``length``, ``size``, ``created``, ``updated``, and ``expires`` with a time to live;
2. *records*, a hash: the number of a record without a key -> its data;
3. *named*, a hash: the number of a record with a key -> the key, a NUL and the data;
4. *numbers*, a hash: a key -> the number of the latest record that has it.

All times are whole microseconds since 1970, by the clock of Redis. Lua numbers are doubles, which
are exact up to 2 ** 53; microseconds reach that in the year 2255. `tostring` in Lua writes them as
``1.7e+15``, so that ``whole`` formats each number which Redis stores or returns as text. An
argument of ``redis.call`` needs no formatting: Redis writes whole numbers with all their digits.

A script begins with its reads and checks, and writes only after the last check: an error of a
script leaves no trace.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

__all__ = ["ACQUIRE", "APPEND", "DELETE", "FIND", "READ", "RELEASE", "RENEW", "Script"]

EMPTY_SECONDS: Final = 86_400
"""How long a conversation without records is kept after its lease has ended.

Its owner may have died before the first append. No list shows it, so nobody would delete it.
"""
COMMON: Final = """
local head, records, named, numbers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function whole(number) return string.format('%.0f', number) end
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
-- Larger than the token before, and larger than all tokens before a deletion or an expiry.
local function next_token(token) return whole(math.max(token + 1, now())) end
"""


class Script:
    """A Lua script, with the hash by which Redis knows it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = f"{COMMON}{text}".encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


# How the end of a lease is written; an empty conversation is kept for some time after it.
LEASE: Final = f"""
local function lease_until(time, length)
  redis.call('HSET', head, 'until', whole(time))
  if not length then
    redis.call('PEXPIREAT', head, whole(math.floor(time / 1000) + {EMPTY_SECONDS * 1000}))
  end
end
"""

ACQUIRE: Final = Script(
    LEASE
    + """
-- ARGV: owner, microseconds -> 'leased', token | 'busy', microseconds left
local known = redis.call('HMGET', head, 'token', 'owner', 'until', 'length')
local token, time = known[1] or '0', now()
if known[2] ~= ARGV[1] then
  local left = tonumber(known[3] or '0') - time
  if left > 0 then return {'busy', whole(left)} end
  token = next_token(token)
end
redis.call('HSET', head, 'token', token, 'owner', ARGV[1])
lease_until(time + tonumber(ARGV[2]), known[4])
return {'leased', token}
"""
)

RENEW: Final = Script(
    LEASE
    + """
-- ARGV: token, microseconds -> 'renewed' | 'gone' | 'taken'
local known = redis.call('HMGET', head, 'token', 'length')
if not known[1] then return {'gone'} end
if known[1] ~= ARGV[1] then return {'taken'} end
lease_until(now() + tonumber(ARGV[2]), known[2])
return {'renewed'}
"""
)

RELEASE: Final = Script("""
-- ARGV: token -> 'released' | 'lost'. From then on the token is not the latest one.
local known = redis.call('HMGET', head, 'token', 'length')
if known[1] ~= ARGV[1] then return {'lost'} end
if tonumber(known[2] or '0') == 0 then
  redis.call('UNLINK', unpack(KEYS))
else
  redis.call('HSET', head, 'token', next_token(known[1]), 'owner', '', 'until', '0')
end
return {'released'}
""")

APPEND: Final = Script("""
-- ARGV: token, position, base or '', largest size, time to live in microseconds or '', and for each
-- record its key or '', and its data -> 'appended' | 'gone' | 'taken' | 'gap', length
-- | 'large', size
local position, limit, ttl = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
local count = (#ARGV - 5) / 2
local known = redis.call('HMGET', head, 'token', 'base', 'length', 'size', 'created')
if not known[1] then return {'gone'} end
if known[1] ~= ARGV[1] then return {'taken'} end
local old_base, length = tonumber(known[2] or '0'), tonumber(known[3] or '0')
local size, time = tonumber(known[4] or '0'), now()
if length < position or length > position + count then return {'gap', whole(length)} end
local base = math.max(old_base, tonumber(ARGV[3]) or 0)
local last_removed = math.min(base, length) - 1
local function record(number)
  local index = 6 + 2 * (number - position)
  return ARGV[index], ARGV[index + 1]
end
for number = old_base, last_removed do
  size = size - redis.call('HSTRLEN', records, number)
end
for number = length, position + count - 1 do
  local key, data = record(number)
  if key ~= '' or number >= base then size = size + #data end
end
if size > limit then return {'large', whole(size)} end

for number = old_base, last_removed do
  redis.call('HDEL', records, number)
end
for number = length, position + count - 1 do
  local key, data = record(number)
  if key ~= '' then
    redis.call('HSET', named, number, key .. '\\0' .. data)
    redis.call('HSET', numbers, key, number)
  elseif number >= base then
    redis.call('HSET', records, number, data)
  end
end
redis.call('HSET', head, 'base', whole(base), 'length', whole(position + count),
  'size', whole(size), 'created', known[5] or whole(time), 'updated', whole(time))
if ttl then
  redis.call('HSET', head, 'expires', whole(time + ttl))
else
  redis.call('HDEL', head, 'expires')
end
for _, key in ipairs(KEYS) do
  if ttl then
    redis.call('PEXPIREAT', key, whole(math.floor((time + ttl) / 1000)))
  else
    redis.call('PERSIST', key)
  end
end
return {'appended'}
""")

READ: Final = Script("""
-- ARGV: position, bytes of a page -> 'gap' | 'read', and for each record its key, a NUL and its
-- data
local position, limit, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local known = redis.call('HMGET', head, 'token', 'base', 'length')
local base, length = tonumber(known[2] or '0'), tonumber(known[3] or '0')
if not known[1] or position < base or position > length then return {'gap'} end
local page = {'read'}
for number = position, length - 1 do
  local data = redis.call('HGET', records, number)
  local record = data and '\\0' .. data or redis.call('HGET', named, number)
  page[#page + 1] = record
  bytes = bytes + #record + 64  -- the record, and what it takes besides
  if bytes >= limit then break end
end
return page
""")

FIND: Final = Script("""
-- ARGV: key -> the key, a NUL and the data | nil
local number = redis.call('HGET', numbers, ARGV[1])
return number and redis.call('HGET', named, number)
""")

DELETE: Final = Script("""
-- ARGV: nothing -> the number of records that the conversation ever had
local length = redis.call('HGET', head, 'length')
redis.call('UNLINK', unpack(KEYS))
return tonumber(length or '0')
""")
