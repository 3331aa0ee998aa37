-- Appends a batch of one producer to a stream, once.
--
-- KEYS  stream, table of producers (both hash to one slot)
-- ARGV  producer, position that the sender believes to be here, most entries of the stream (0: all),
--       then for each event: its position, how many fields and values follow, these
-- Returns the position that is here now, an error if the batch stopped at one, and how many were appended.
local known = redis.call('HGET', KEYS[2], ARGV[1]) or '0'
if tonumber(known) < tonumber(ARGV[2]) then
  -- What the sender believes to be here is not: it has to go back.
  return {known, '', 0}
end
local before = known
local failure = ''
local appended = 0
local i = 4
while i < #ARGV do
  local last = i + 1 + ARGV[i + 1]
  if tonumber(ARGV[i]) > tonumber(known) then
    local reply
    if ARGV[3] == '0' then
      reply = redis.pcall('XADD', KEYS[1], '*', unpack(ARGV, i + 2, last))
    else
      reply = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, i + 2, last))
    end
    if type(reply) == 'table' and reply.err then
      failure = reply.err
      break
    end
    known = ARGV[i]
    appended = appended + 1
  end
  i = last + 1
end
if known ~= before then
  redis.call('HSET', KEYS[2], ARGV[1], known)
end
return {known, failure, appended}
