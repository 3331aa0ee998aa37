-- Announces sessions whose arrival is neither in the journal any more nor in the stream, each once. What is in front
-- of it is left.lua and clients.lua.
--
-- KEYS  stream, roll, part of the roll, record of the instance, its ousted sessions, places of clients
-- ARGV  instance, its epoch, most entries of the stream (0: all), 1 if events are extended, by how many microseconds the
--       clock of Redis is ahead of the sender's, at least, and by how much this may be too little, then for each: session,
--       row of the roll, client (empty: it takes nobody's place), how many fields and values follow, these, the fourth of
--       which is occurred_at
-- Returns how many were announced.
local record = redis.call('HMGET', KEYS[4], 'epoch', 'sessions', 'at')
if record[1] ~= ARGV[2] then
  return redis.error_reply('FENCED the epoch is over')
end
local whole = tostring(redis.call('HLEN', KEYS[3])) == (record[2] or '0')
redis.call('HLEN', KEYS[6])
local at = record[3] or ''
local announced = 0
local i = 7
while i < #ARGV do
  local first = i + 4
  local last = first - 1 + ARGV[i + 3]
  local session, row, client = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if ARGV[first + 7] <= at then
    local time = behind(at, ARGV[first + 7])
    row = string.gsub(row, '"since":"' .. ARGV[first + 7] .. '"', '"since":"' .. time .. '"', 1)
    ARGV[first + 7] = time
  end
  -- Who was closed by others, and has yet to leave the journal, was announced.
  local ousted = redis.call('HGET', KEYS[5], session)
  if ousted ~= 'closed' and redis.call('HSETNX', KEYS[3], session, row) == 1 then
    if client ~= '' then
      arrive(ARGV[1], session, client, tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[4] == '1')
    end
    local id
    if ARGV[3] == '0' then
      id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, first, last))
    else
      id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, first, last))
    end
    at = ARGV[first + 7]
    redis.call('HSET', KEYS[2], ARGV[1], id)
    redis.call('HSET', KEYS[4], 'at', at, 'ahead', ARGV[5])
    announced = announced + 1
  end
  i = last + 1
end
store_left()
if whole then
  redis.call('HSET', KEYS[4], 'sessions', redis.call('HLEN', KEYS[3]))
end
return announced
