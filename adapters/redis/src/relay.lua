-- Appends a batch of one producer to a stream, once. What is in front of it is append.lua.
--
-- KEYS  stream, table of producers (both hash to one slot)
-- ARGV  producer, position that the sender believes to be here, most entries of the stream (0: all),
--       1 if Redis guards against doubles (or 0), then for each event: its position, how many fields and values follow, these
-- Returns the position that is here now, an error if the batch stopped at one, and how many were appended.
local known = redis.call('HGET', KEYS[2], ARGV[1]) or '0'
if tonumber(known) < tonumber(ARGV[2]) then
  -- What the sender believes to be here is not: it has to go back.
  return {known, '', 0}
end
local before = known
local failure = ''
local appended = 0
local guarded = ARGV[4] == '1' and ARGV[1]
local i = 5
while i < #ARGV do
  local last = i + 1 + ARGV[i + 1]
  if tonumber(ARGV[i]) > tonumber(known) then
    local reply, is_new = append(guarded, ARGV[i], i + 2, last)
    if type(reply) == 'table' and reply.err then
      failure = reply.err
      break
    end
    known = ARGV[i]
    appended = appended + (is_new and 1 or 0)
  end
  i = last + 1
end
if known ~= before then
  redis.call('HSET', KEYS[2], ARGV[1], known)
  trim(ARGV[3])
end
return {known, failure, appended}
