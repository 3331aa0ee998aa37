-- Frees places of clients whose sessions are on no roll, in steps.
--
-- KEYS  stream, places of clients
-- ARGV  where to go on, 0 to begin
-- Returns where to go on, 0 at the end.
local found = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', 256)
for i = 1, #found[2], 2 do
  local session, instance = string.sub(found[2][i + 1], 1, 36), string.sub(found[2][i + 1], 38)
  local row = redis.pcall('HGET', '{' .. KEYS[1] .. '}.roll:' .. instance, session)
  if type(row) ~= 'string' then
    redis.call('HDEL', KEYS[2], found[2][i])
  end
end
return found[1]
