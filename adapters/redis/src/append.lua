-- Put in front of the scripts of the relay: appends an entry, by its producer and position once, where Redis can tell
-- (IDMP, Redis 8.6). That is for when the table of producers was lost, and the stream was not.

-- How long, in seconds, and how many events of each producer Redis remembers: as much as it can.
local window = {'IDMP-DURATION', '86400', 'IDMP-MAXSIZE', '10000'}

-- Sets that. Returns whether Redis knows of it: if not yet, since there is no stream, or if that is not ours to set.
local function set_window()
  local set = redis.pcall('XCFGSET', KEYS[1], unpack(window))
  if type(set) == 'table' and set.err then
    return string.find(set.err, 'no such key', 1, true) or string.find(set.err, 'NOPERM', 1, true)
  end
  return true
end

-- Makes the stream, if there is none, so that the first entry falls into the window: to set it later would forget that one.
local function make_stream()
  local group = 'rollcall.window'
  local left = redis.pcall('XGROUP', 'DESTROY', KEYS[1], group)
  if type(left) == 'number' or not string.find(left.err, 'NOPERM', 1, true) then
    redis.pcall('XGROUP', 'CREATE', KEYS[1], group, '$', 'MKSTREAM')
    redis.pcall('XGROUP', 'DESTROY', KEYS[1], group)
  end
  set_window()
end

-- The numbers of the id of the last entry, once it is asked for.
local latest_time, latest_number

local function numbers(id)
  local time, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(time), tonumber(number)
end

-- Appends ARGV[first] to ARGV[last]. With a producer, what it has appended at this position stays as it is. Returns the
-- id of the entry, and whether it is new; or an error.
local function append(producer, position, first, last)
  if not producer then
    local id = redis.pcall('XADD', KEYS[1], '*', unpack(ARGV, first, last))
    return id, type(id) == 'string'
  end
  if not latest_time then
    local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
    if not entry then
      make_stream()
    end
    latest_time, latest_number = numbers(entry and entry[1] or '0-0')
  end
  local id = redis.pcall('XADD', KEYS[1], 'IDMP', producer, position, '*', unpack(ARGV, first, last))
  if type(id) == 'table' then
    return id, false
  end
  local time, number = numbers(id)
  if time < latest_time or (time == latest_time and number <= latest_number) then
    return id, false
  end
  latest_time, latest_number = time, number
  return id, true
end

-- Once for all that were appended: with each entry, entries would cost half as much again. `most` entries stay (0: all).
local function trim(most)
  if most ~= '0' then
    redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', most)
  end
end
