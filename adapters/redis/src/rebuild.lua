-- Makes the part that an instance has of the roll anew, in steps that each hold Redis up only shortly. What is in front
-- of it is left.lua and clients.lua.
--
-- KEYS  stream, roll, part of the roll, record of the instance, its ousted sessions, places of clients
-- ARGV  instance, its epoch, step: begin, add (then session, row and client of each) or end
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
  for i = 4, #ARGV, 3 do
    local session = ARGV[i]
    -- Who was closed by others, and has yet to leave the journal, is not on the roll.
    if redis.call('HGET', KEYS[5], session) ~= 'closed' then
      redis.call('HSET', KEYS[3], session, ARGV[i + 1])
      if ARGV[i + 2] ~= '' then
        arrive(ARGV[1], session, ARGV[i + 2])
      end
    end
  end
else
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  redis.call('HSET', KEYS[2], ARGV[1], last and last[1] or '0-0')
  redis.call('HSET', KEYS[4], 'sessions', redis.call('HLEN', KEYS[3]))
end
return step
