-- Appends a batch of one instance to the stream of presence, once, and keeps its part of the roll in step.
-- What is in front of it is left.lua.
--
-- KEYS  stream, table of producers, roll, part of the roll, record of the instance (all in one slot)
-- ARGV  instance, its epoch, producer, position that the sender believes to be here, most entries of the stream
--       (0: all), then for each event: its position, session, row of the roll (empty: the session leaves), occurred_at,
--       how many fields and values follow, these
-- Returns the position that is here now, an error if nothing was done because of it, 1 if the part of the roll
-- is whole (0: some of it was lost), and how many events were appended.
local known = redis.call('HGET', KEYS[2], ARGV[3]) or '0'
-- Also sees that the keys are of the right kind: from here on no command can fail halfway.
local record = redis.call('HMGET', KEYS[5], 'epoch', 'sessions')
if record[1] ~= ARGV[2] then
  return {known, 'FENCED', 1, 0}
end
local whole = tostring(redis.call('HLEN', KEYS[4])) == (record[2] or (known == '0' and '0'))
redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[3])
if tonumber(known) < tonumber(ARGV[4]) then
  return {known, '', whole and 1 or 0, 0}
end
-- The first write of a script is the one that a full Redis refuses.
local guard = redis.pcall('HSET', KEYS[2], ARGV[3], known)
if type(guard) == 'table' and guard.err then
  return {known, guard.err, whole and 1 or 0, 0}
end
local appended = 0
local id, at
local i = 6
while i < #ARGV do
  local first, last = i + 5, i + 4 + ARGV[i + 4]
  if tonumber(ARGV[i]) > tonumber(known) then
    local announced = true
    if ARGV[i + 2] ~= '' then
      redis.call('HSET', KEYS[4], ARGV[i + 1], ARGV[i + 2])
    elseif redis.call('HDEL', KEYS[4], ARGV[i + 1]) == 0 then
      -- Who is not on the roll has left already, unless it is the roll that has lost the session.
      announced = not whole
    end
    if announced then
      if ARGV[5] == '0' then
        id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, first, last))
      else
        id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', unpack(ARGV, first, last))
      end
      at = ARGV[i + 3]
      if ARGV[i + 2] == '' then
        -- Fields begin with the thing.
        note_left(ARGV[first + 1], id, at, ARGV[1])
      end
      appended = appended + 1
    end
    known = ARGV[i]
  end
  i = last + 1
end
redis.call('HSET', KEYS[2], ARGV[3], known)
if id then
  redis.call('HSET', KEYS[5], 'at', at)
  if whole then
    redis.call('HSET', KEYS[3], ARGV[1], id)
    redis.call('HSET', KEYS[5], 'sessions', redis.call('HLEN', KEYS[4]))
  end
end
store_left()
return {known, '', whole and 1 or 0, appended}
