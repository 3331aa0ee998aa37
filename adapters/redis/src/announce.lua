-- Appends a batch of one instance to the stream of presence, once, and keeps its part of the roll, and the places of its
-- clients, in step. What is in front of it is append.lua, left.lua and clients.lua.
--
-- KEYS  stream, table of producers, roll, part of the roll, record of the instance, its ousted sessions, places of
--       clients (all in one slot)
-- ARGV  instance, its epoch, producer, position that the sender believes to be here, most entries of the stream
--       (0: all), 1 if Redis guards against doubles (or 0), 1 if events are extended, by how many microseconds the clock
--       of Redis is ahead of the sender's, at least, and by how much this may be too little, then for each event: its
--       position, session, row of the roll (if the session leaves: nothing, or - if it surely has the place of its
--       client), client (empty: it takes nobody's place), how many fields and values follow, these, the fourth of which is
--       occurred_at
-- Returns the position that is here now, an error if nothing was done because of it, 1 if the part of the roll
-- is whole (0: some of it was lost), how many events were appended, and how many sessions of others were closed.
local known = redis.call('HGET', KEYS[2], ARGV[3]) or '0'
-- Also sees that the keys are of the right kind: from here on no command can fail halfway.
local record = redis.call('HMGET', KEYS[5], 'epoch', 'sessions', 'at')
if record[1] ~= ARGV[2] then
  return {known, 'FENCED', 1, 0, 0}
end
local whole = tostring(redis.call('HLEN', KEYS[4])) == (record[2] or (known == '0' and '0'))
redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[7])
local has_ousted = redis.call('HLEN', KEYS[6]) > 0
if tonumber(known) < tonumber(ARGV[4]) then
  return {known, '', whole and 1 or 0, 0, 0}
end
-- The first write of a script is the one that a full Redis refuses.
local guard = redis.pcall('HSET', KEYS[2], ARGV[3], known)
if type(guard) == 'table' and guard.err then
  return {known, guard.err, whole and 1 or 0, 0, 0}
end
local instance, part, extended = ARGV[1], KEYS[4], ARGV[7] == '1'
local guarded = ARGV[6] == '1' and ARGV[3]
local ahead, slack = tonumber(ARGV[8]), tonumber(ARGV[9])
local appended, closed = 0, 0
local at = record[3] or ''
local id
local number = tonumber(known)
local i = 10
while i < #ARGV do
  local first, last = i + 5, i + 4 + ARGV[i + 4]
  local position = tonumber(ARGV[i])
  if position > number then
    local session, row, client = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if ARGV[first + 7] <= at then
      -- Others have closed a session of this instance in the meantime, by their clocks.
      local time = behind(at, ARGV[first + 7])
      row = string.gsub(row, '"since":"' .. ARGV[first + 7] .. '"', '"since":"' .. time .. '"', 1)
      ARGV[first + 7] = time
    end
    local leaves, announced = #row < 2, true
    if not leaves then
      if client ~= '' and arrive(instance, session, client, ahead, slack, extended) then
        closed = closed + 1
      end
    else
      local is_here = call('HDEL', part, session) == 1
      local ousted = (has_ousted or gave_way) and call('HGET', KEYS[6], session)
      if ousted then
        call('HDEL', KEYS[6], session)
      end
      if is_here and not ousted and row == '-' then
        call('HDEL', clients, client)
      elseif client ~= '' then
        depart(session, client)
      end
      if not is_here then
        -- Who is not on the roll has left already, unless it is the roll that has lost the session.
        announced = not whole and ousted ~= 'closed'
      end
    end
    if announced then
      local entry, is_new = append(guarded, ARGV[i], first, last)
      if type(entry) == 'table' then
        -- The stream has had its last possible entry.
        return entry
      end
      if is_new then
        id, at = entry, ARGV[first + 7]
        if leaves then
          -- Fields begin with the thing.
          note_left(ARGV[first + 1], id, at, instance)
        else
          call('HSET', part, session, row)
        end
        appended = appended + 1
      end
    end
    known, number = ARGV[i], position
  end
  i = last + 1
end
redis.call('HSET', KEYS[2], ARGV[3], known)
if id then
  if whole then
    redis.call('HSET', KEYS[3], ARGV[1], id)
    redis.call('HSET', KEYS[5], 'at', at, 'ahead', ARGV[8], 'sessions', redis.call('HLEN', KEYS[4]))
  else
    redis.call('HSET', KEYS[5], 'at', at, 'ahead', ARGV[8])
  end
end
store_left()
if appended > 0 then
  trim(ARGV[5])
end
return {known, '', whole and 1 or 0, appended, closed}
