-- Makes the part of an instance that is gone anew, from what the stream adds up to.
--
-- KEYS  roll, part of the roll, record of the instance, lease
-- ARGV  instance, step: begin, add (then session and row of each) or end; to begin, the time of the last event as
--       the sender knows it; to end, that, and the entry at which the part is valid
-- Returns an error (alive, raced) or nothing.
if redis.call('EXISTS', KEYS[4]) == 1 then
  return 'alive'
end
local step = ARGV[2]
if step == 'begin' then
  if (redis.call('HGET', KEYS[3], 'at') or '') ~= ARGV[3] then
    return 'raced'
  end
  redis.call('UNLINK', KEYS[2])
  if redis.call('HGET', KEYS[1], ARGV[1]) then
    redis.call('HSET', KEYS[1], ARGV[1], '')
  end
elseif step == 'add' then
  redis.call('HSET', KEYS[2], unpack(ARGV, 3))
else
  local at = redis.call('HGET', KEYS[3], 'at') or ''
  if ARGV[3] > at then
    redis.call('HSET', KEYS[3], 'at', ARGV[3])
  end
  redis.call('HSET', KEYS[3], 'sessions', redis.call('HLEN', KEYS[2]))
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
end
return ''
