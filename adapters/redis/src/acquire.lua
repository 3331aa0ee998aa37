-- Takes the lease of an instance under a new epoch, unless another has it.
--
-- KEYS  lease, lease of the journal, roll, part of the roll, record of the instance
-- ARGV  instance, producer, place of the journal, time to live in ms, a random word, the clock of the instance,
--       who this is
-- Returns taken, the epoch, the epoch before;
--      or held, who has it, ms that are left;
--      or leftover: sessions of another journal are to be closed first.
local function other(key)
  local value = redis.call('GET', key)
  if not value then
    return nil
  end
  local place, who = string.match(value, '^([^\n]*)\n[^\n]*\n(.*)$')
  -- A file is locked by one process: the one that had it at this place is gone.
  if place == ARGV[3] then
    return nil
  end
  return {'held', who or value, tostring(redis.call('PTTL', key))}
end
local holder = other(KEYS[1]) or other(KEYS[2])
if holder then
  return holder
end
local record = redis.call('HMGET', KEYS[5], 'producer', 'epoch')
if record[1] and record[1] ~= ARGV[2] and redis.call('HLEN', KEYS[4]) > 0 then
  redis.call('DEL', KEYS[1])
  return {'leftover', '', ''}
end
local time = redis.call('TIME')
local epoch = time[1] .. string.format('%06d', time[2]) .. '-' .. ARGV[5]
local value = ARGV[3] .. '\n' .. epoch .. '\n' .. ARGV[7]
redis.call('SET', KEYS[1], value, 'PX', ARGV[4])
redis.call('SET', KEYS[2], value, 'PX', ARGV[4])
redis.call('HSETNX', KEYS[3], ARGV[1], '0-0')
redis.call('HSET', KEYS[5], 'epoch', epoch, 'producer', ARGV[2], 'alive', ARGV[6])
redis.call('PERSIST', KEYS[5])
return {'taken', epoch, record[2] or ''}
