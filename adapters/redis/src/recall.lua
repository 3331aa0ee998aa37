-- Notes when things left last, by the stream, where nothing later is known. What is in front of it is left.lua.
--
-- KEYS  stream
-- ARGV  things, each followed by what is noted, the latest first
-- Returns 0 once there is no more room.
local before = left_key .. ':before'

local function numbers(noted)
  local time, number = string.match(noted, '^(%d+)-(%d+) ')
  return tonumber(time) or 0, tonumber(number) or 0
end

local function is_later(a, b)
  local time_a, number_a = numbers(a)
  local time_b, number_b = numbers(b)
  return time_a > time_b or (time_a == time_b and number_a > number_b)
end

for _, key in ipairs({left_key, before}) do
  if type(redis.pcall('HLEN', key)) ~= 'number' then
    redis.call('UNLINK', key)
  end
end
if redis.call('HLEN', before) >= most_left then
  return 0
end
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', left_key, ARGV[i]) or redis.call('HGET', before, ARGV[i])
  if not known or is_later(ARGV[i + 1], known) then
    redis.call('HSET', before, ARGV[i], ARGV[i + 1])
  end
end
return 1
