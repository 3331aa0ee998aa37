-- Closes sessions of an instance that is gone. The first step ends its epoch, so from then on it appends nothing.
-- What is in front of it is left.lua and clients.lua.
--
-- KEYS  stream, roll, part of the roll, record of the instance, lease, places of clients
-- ARGV  instance, epoch and time of the last event as the sender knows them, the epoch from here on, most
--       entries of the stream (0: all), ms to remember an instance that has nobody on the roll,
--       then for each: session, client, occurred_at, how many fields and values follow, these
-- Returns an error (alive, raced, or why Redis refuses), and how many were closed.
if redis.call('EXISTS', KEYS[5]) == 1 then
  return {'alive', 0}
end
local record = redis.call('HMGET', KEYS[4], 'epoch', 'at')
if (record[1] or '') ~= ARGV[2] or (record[2] or '') ~= ARGV[3] then
  return {'raced', 0}
end
redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[6])
-- The first write of a script is the one that a full Redis refuses.
local guard = redis.pcall('HSET', KEYS[4], 'epoch', ARGV[4])
if type(guard) == 'table' and guard.err then
  return {guard.err, 0}
end
local closed = 0
local i = 7
while i < #ARGV do
  local first, last = i + 4, i + 3 + ARGV[i + 3]
  if redis.call('HDEL', KEYS[3], ARGV[i]) == 1 then
    local id
    if ARGV[5] == '0' then
      id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, first, last))
    else
      id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', unpack(ARGV, first, last))
    end
    redis.call('HSET', KEYS[2], ARGV[1], id)
    redis.call('HSET', KEYS[4], 'at', ARGV[i + 2])
    -- Fields begin with the thing.
    note_left(ARGV[first + 1], id, ARGV[i + 2], ARGV[1])
    depart(ARGV[i], ARGV[i + 1])
    closed = closed + 1
  end
  i = last + 1
end
store_left()
local sessions = redis.call('HLEN', KEYS[3])
redis.call('HSET', KEYS[4], 'sessions', sessions)
if sessions == 0 then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[4], ARGV[6])
end
return {'', closed}
