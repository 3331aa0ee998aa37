-- Takes away what is no hash where one is to be.
--
-- KEYS  the hashes
for i = 1, #KEYS do
  if type(redis.pcall('HLEN', KEYS[i])) ~= 'number' then
    redis.call('UNLINK', KEYS[i])
  end
end
return #KEYS
