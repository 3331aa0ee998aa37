-- Moves what an instance has of the roll to the name that it has now.
--
-- KEYS  roll, earlier part and record, part and record under the new name, ousted sessions under both
-- ARGV  earlier name, new name, producer
-- Returns 1, or 0 if the earlier name is not of this producer.
local before = redis.call('HMGET', KEYS[3], 'producer', 'sessions', 'at')
if before[1] ~= ARGV[3] then
  return 0
end
local whole = tostring(redis.call('HLEN', KEYS[2])) == before[2]
local rows = redis.call('HGETALL', KEYS[2])
if redis.call('EXISTS', KEYS[4]) == 0 then
  if #rows > 0 then
    redis.call('RENAME', KEYS[2], KEYS[4])
  end
else
  for i = 1, #rows, 2 do
    redis.call('HSET', KEYS[4], rows[i], rows[i + 1])
  end
  redis.call('UNLINK', KEYS[2])
end
-- The places of clients go on naming the earlier one: all who were here are about to leave.
if redis.call('EXISTS', KEYS[6]) == 1 then
  redis.call('RENAME', KEYS[6], KEYS[7])
end
local at = redis.call('HGET', KEYS[5], 'at') or ''
-- Nanoseconds are more than a number holds, but all have as many digits.
if before[3] and before[3] > at then
  at = before[3]
end
local sessions = whole and redis.call('HLEN', KEYS[4]) or ''
redis.call('HSET', KEYS[5], 'producer', ARGV[3], 'sessions', sessions, 'at', at)
redis.call('HSET', KEYS[1], ARGV[2], redis.call('HGET', KEYS[1], ARGV[1]) or '0-0')
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
