-- Put in front of the scripts that let sessions leave: when a thing left last.
--
-- {stream}.left is a hash: thing to `entry occurred_at instance` of its last disconnect. Once it is full it is put aside as
-- .left:before, in place of the one before: so what is kept is bounded, and those that left last are there.
local left_key = '{' .. KEYS[1] .. '}.left'
local most_left = 500000

-- Of this call: things, each followed by what is noted.
local leaving = {}

local function note_left(thing, id, at, instance)
  leaving[#leaving + 1] = thing
  leaving[#leaving + 1] = id .. ' ' .. at .. ' ' .. instance
end

local function store_left()
  if #leaving == 0 then
    return
  end
  local things = redis.pcall('HLEN', left_key)
  if type(things) ~= 'number' then
    -- Of another kind.
    redis.call('UNLINK', left_key)
  elseif things >= most_left then
    redis.call('UNLINK', left_key .. ':before')
    redis.call('RENAME', left_key, left_key .. ':before')
  end
  -- More than some thousands do not fit into one call.
  for first = 1, #leaving, 1000 do
    redis.call('HSET', left_key, unpack(leaving, first, math.min(first + 999, #leaving)))
  end
end

