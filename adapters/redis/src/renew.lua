-- Renews a lease, or gives it back.
--
-- KEYS  lease, lease of the journal, roll, part of the roll, record of the instance
-- ARGV  instance, epoch, time to live in ms (0: give it back), the clock of the instance, ms to remember an
--       instance that has nobody on the roll, what the lease says
-- Returns 1, or 0 if the epoch is over.
if redis.call('HGET', KEYS[5], 'epoch') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1], KEYS[2])
  if redis.call('HLEN', KEYS[4]) == 0 then
    redis.call('HDEL', KEYS[3], ARGV[1])
    redis.call('PEXPIRE', KEYS[5], ARGV[5])
  end
  return 1
end
for i = 1, 2 do
  if (redis.call('GET', KEYS[i]) or ARGV[6]) ~= ARGV[6] then
    return 0
  end
end
-- What has run out in the meantime was taken by nobody, or the epoch would be another one.
redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[6], 'PX', ARGV[3])
redis.call('HSET', KEYS[5], 'alive', ARGV[4])
return 1
