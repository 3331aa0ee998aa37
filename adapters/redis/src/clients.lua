-- Put in front of the scripts that know of clients, behind left.lua: a client of a thing is online once, on whichever
-- instance.
--
-- {stream}.clients is a hash: client (thing/client id) to its place: the session that has it, and on which instance.
-- {stream}.ousted:INSTANCE is one too: sessions that the instance is to end, until they have left its journal; closed, if
-- the stream has their disconnect already, or open. These, and the keys of other instances, are in the slot of KEYS[1],
-- the stream.
local call, sub = redis.call, string.sub
local base = '{' .. KEYS[1] .. '}.'
local clients = base .. 'clients'
-- Of an instance that never comes back this is forgotten: a week, in ms.
local ousted_memory = 604800000

-- `at`, or the first nanosecond after `last` if that is later. They are more than a number holds, but all have as many
-- digits.
local function behind(last, at)
  if at > last then
    return at
  end
  local rest = tonumber(string.sub(last, -9)) + 1
  if rest < 1000000000 then
    return string.sub(last, 1, -10) .. string.format('%09d', rest)
  end
  return string.format('%.0f', tonumber(string.sub(last, 1, -10)) + 1) .. '000000000'
end

local function text(value)
  return type(value) == 'string' and value or ''
end

-- When a session came, in microseconds by the clock of Redis, which is `ahead` of its instance's: the time in its id, to the
-- millisecond. Announced anew, a session has another id and the same time.
local function moment(session, ahead)
  local ms = tonumber(sub(session, 1, 8) .. sub(session, 10, 13), 16)
  return ms and ahead and ms * 1000 + ahead
end

-- Closes a session of another instance at a moment, as that one would have, by its own clock.
local function oust(instance, session, row, known, at, extended)
  local part, record = base .. 'roll:' .. instance, base .. 'instance:' .. instance
  local ousted = base .. 'ousted:' .. instance
  local ok, said = pcall(cjson.decode, row)
  if not ok or type(said) ~= 'table' then
    return false
  end
  local last = known[1] or text(said.since)
  if not string.match(last, '^%d+$') then
    return false
  end
  local whole = tostring(call('HLEN', part)) == known[2]
  call('HDEL', part, session)
  at = behind(last, at and known[3] and string.format('%.0f', at - known[3]) .. '000' or '')
  local event = {'thing_id', text(said.thing_id), 'event_type', 'disconnect', 'instance', text(said.instance),
    'occurred_at', at}
  if extended then
    for _, field in ipairs({'session_id', session, 'client_id', text(said.client_id), 'sequence', '2', 'reason',
      'taken_over', 'protocol', text(said.protocol), 'peer', text(said.peer)}) do
      event[#event + 1] = field
    end
  end
  local id = call('XADD', KEYS[1], '*', unpack(event))
  call('HSET', record, 'at', at)
  if whole then
    call('HSET', base .. 'roll', instance, id)
    call('HSET', record, 'sessions', call('HLEN', part))
  end
  note_left(text(said.thing_id), id, at, instance)
  call('HSET', ousted, session, 'closed')
  call('PEXPIRE', ousted, ousted_memory)
  return true
end

local gave_way = false

-- A session takes the place of its client. Who has it on another instance is closed; but if that one has surely come later
-- (clocks may be wrong by `slack`), or the session was here before (no `slack`), the session itself is to end. Returns
-- whether another was closed.
local function arrive(instance, session, client, ahead, slack, extended)
  local place = session .. ' ' .. instance
  if call('HSETNX', clients, client, place) == 1 then
    return false
  end
  local taken = call('HGET', clients, client)
  local other, holder = sub(taken, 1, 36), sub(taken, 38)
  local closed = false
  if holder ~= instance then
    local row = redis.pcall('HGET', base .. 'roll:' .. holder, other)
    local known = redis.pcall('HMGET', base .. 'instance:' .. holder, 'at', 'sessions', 'ahead')
    if type(row) == 'string' and not known.err then
      local mine, theirs = moment(session, ahead), moment(other, known[3])
      if not slack or mine and theirs and mine + slack < theirs then
        local ousted = base .. 'ousted:' .. instance
        call('HSET', ousted, session, 'open')
        call('PEXPIRE', ousted, ousted_memory)
        gave_way = true
        return false
      end
      closed = oust(holder, other, row, known, mine, extended)
    end
  end
  call('HSET', clients, client, place)
  return closed
end

-- A session leaves the place of its client, if it has it.
local function depart(session, client)
  local place = call('HGET', clients, client)
  if place and sub(place, 1, 36) == session then
    call('HDEL', clients, client)
  end
end
