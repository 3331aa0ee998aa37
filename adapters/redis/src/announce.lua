-- Appends a batch of one instance to the stream of presence, once, and keeps its part of the roll in step.
-- What is in front of it is append.lua and left.lua.
--
-- KEYS  stream, table of producers, roll, part of the roll, record of the instance (all in one slot)
-- ARGV  instance, its epoch, producer, position that the sender believes to be here, most entries of the stream
--       (0: all), 1 if Redis guards against doubles (or 0), then for each event: its position, session, row of the roll
--       (empty: the session leaves), occurred_at, how many fields and values follow, these
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
local guarded = ARGV[6] == '1' and ARGV[3]
local i = 7
while i < #ARGV do
  local first, last = i + 5, i + 4 + ARGV[i + 4]
  if tonumber(ARGV[i]) > tonumber(known) then
    local leaves = ARGV[i + 2] == ''
    -- Who is not on the roll has left already, unless it is the roll that has lost the session.
    if not leaves or redis.call('HDEL', KEYS[4], ARGV[i + 1]) == 1 or not whole then
      local entry, is_new = append(ARGV[5], guarded, ARGV[i], first, last)
      if type(entry) == 'table' then
        -- The stream has had its last possible entry.
        return entry
      end
      if is_new then
        id, at = entry, ARGV[i + 3]
        if leaves then
          -- Fields begin with the thing.
          note_left(ARGV[first + 1], id, at, ARGV[1])
        else
          redis.call('HSET', KEYS[4], ARGV[i + 1], ARGV[i + 2])
        end
        appended = appended + 1
      end
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
