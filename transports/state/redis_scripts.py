"""The Lua that Redis runs for a session store: each script is one atomic step on one session.

Their keys share a Cluster slot. Epochs are microseconds, exact in Lua's doubles until the year 2255; `%.0f` prints
them whole. A stored epoch that is no such number counts as 0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LuaScript:
    """Lua source and the digest by which a server that has seen it knows it."""

    source: str
    sha: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


_EPOCH = """
local function epoch_of(text)
  local number = tonumber(text or '0') or 0
  if number >= 0 and number < 9e15 then return number end
  return 0
end
"""

CLAIM = LuaScript(
    _EPOCH
    + """
-- KEYS: hash, damaged key.  ARGV: owner, least epoch, deadline (us), TTL (ms), damaged TTL (ms), then the fields and
-- values of a new session.  Returns {'ok', epoch, now, damaged?, field, value, ...} or {'late', '0', now}.
-- A claim that a frozen server finds in its socket long after its sender gave up must not take the session.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then return {'late', '0', string.format('%.0f', now)} end
local kind = redis.call('TYPE', KEYS[1]).ok
local damaged = ''
if kind ~= 'hash' and kind ~= 'none' then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  kind, damaged = 'none', 'not a hash'
end
local old = redis.call('HGETALL', KEYS[1])
local current = epoch_of(redis.call('HGET', KEYS[1], 'epoch'))
local epoch = string.format('%.0f', math.max(current + 1, now, tonumber(ARGV[2])))
if kind == 'none' then redis.call('HSET', KEYS[1], unpack(ARGV, 6)) end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', epoch, 'sequence', '0', 'logged', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local reply = {'ok', epoch, string.format('%.0f', now), damaged}
for _, value in ipairs(old) do reply[#reply + 1] = value end
return reply
"""
)

WRITE = LuaScript(
    _EPOCH
    + """
-- KEYS: hash, log, damaged key.  ARGV: owner, epoch, sequence, TTL (ms), log length, number of the first log line,
-- n lines, damaged TTL (ms) for a first write else '0', 5 values for each line, then fields and values.
-- Returns 'stored', 'stale', 'fenced', or for a first write that finds a conversation {'claimed', field, value, ...}.
local is_first = ARGV[8] ~= '0'
if is_first then
  local kind = redis.call('TYPE', KEYS[1]).ok
  if kind ~= 'hash' and kind ~= 'none' then
    redis.call('RENAME', KEYS[1], KEYS[3])
    redis.call('PEXPIRE', KEYS[3], ARGV[8])
  end
end
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'sequence', 'logged')
local stored, epoch, logged = epoch_of(held[2]), epoch_of(ARGV[2]), 0
if held[1] == ARGV[1] then
  if epoch_of(held[3]) > epoch_of(ARGV[3]) then return 'stale' end
  epoch = math.max(stored, epoch)
  logged = epoch_of(held[4])
elseif held[1] and stored >= epoch then
  return 'fenced'
end
if is_first and held[1] and (held[1] ~= ARGV[1] or epoch_of(held[3]) == 0) then
  local old = redis.call('HGETALL', KEYS[1])
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', string.format('%.0f', math.max(stored, epoch)),
    'sequence', '0', 'logged', '0')
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  table.insert(old, 1, 'claimed')
  return old
end
local first, lines = tonumber(ARGV[6]), tonumber(ARGV[7])
for line = 0, lines - 1 do
  if first + line > logged then
    local at = 9 + 5 * line
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'from', ARGV[at], 'to', ARGV[at + 1],
      'trigger', ARGV[at + 2], 'turn_id', ARGV[at + 3], 'at', ARGV[at + 4])
  end
end
if lines > 0 then
  logged = math.max(logged, first + lines - 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', string.format('%.0f', epoch), 'sequence', ARGV[3],
  'logged', string.format('%.0f', logged), unpack(ARGV, 9 + 5 * lines))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 'stored'
"""
)

QUARANTINE = LuaScript(
    """
-- KEYS: hash, damaged key.  ARGV: owner, epoch, TTL (ms), damaged TTL (ms), then the fields of a new session.
-- Puts the hash aside and starts a new one, if the owner still has it.  Returns 1 or 0.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', ARGV[2], 'sequence', '0', 'logged', '0', unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

ALL = (CLAIM, WRITE, QUARANTINE)
