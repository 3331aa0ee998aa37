-- Makes the part that an instance has of the roll anew, in steps that each hold Redis up only shortly.
--
-- KEYS  stream, roll, part of the roll, record of the instance
-- ARGV  instance, its epoch, step: begin, add (then session and row of each) or end
if redis.call('HGET', KEYS[4], 'epoch') ~= ARGV[2] then
  return redis.error_reply('FENCED the epoch is over')
end
local step = ARGV[3]
if step == 'begin' then
  redis.call('UNLINK', KEYS[3])
  -- Whoever reads it waits; whoever finds this instance gone closes what is there.
  redis.call('HSET', KEYS[2], ARGV[1], '')
  redis.call('HSET', KEYS[4], 'sessions', '')
elseif step == 'add' then
  redis.call('HSET', KEYS[3], unpack(ARGV, 4))
else
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  redis.call('HSET', KEYS[2], ARGV[1], last and last[1] or '0-0')
  redis.call('HSET', KEYS[4], 'sessions', redis.call('HLEN', KEYS[3]))
end
return step
