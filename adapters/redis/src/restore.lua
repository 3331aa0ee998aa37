-- Announces sessions whose arrival is neither in the journal any more nor in the stream, each once.
--
-- KEYS  stream, roll, part of the roll, record of the instance
-- ARGV  instance, its epoch, most entries of the stream (0: all), then for each: session, row of the roll,
--       occurred_at, how many fields and values follow, these
-- Returns how many were announced.
if redis.call('HGET', KEYS[4], 'epoch') ~= ARGV[2] then
  return redis.error_reply('FENCED the epoch is over')
end
local whole = tostring(redis.call('HLEN', KEYS[3])) == (redis.call('HGET', KEYS[4], 'sessions') or '0')
local announced = 0
local i = 4
while i < #ARGV do
  local last = i + 3 + ARGV[i + 3]
  if redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[i + 1]) == 1 then
    local id
    if ARGV[3] == '0' then
      id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 4, last))
    else
      id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, i + 4, last))
    end
    redis.call('HSET', KEYS[2], ARGV[1], id)
    redis.call('HSET', KEYS[4], 'at', ARGV[i + 2])
    announced = announced + 1
  end
  i = last + 1
end
if whole then
  redis.call('HSET', KEYS[4], 'sessions', redis.call('HLEN', KEYS[3]))
end
return announced
