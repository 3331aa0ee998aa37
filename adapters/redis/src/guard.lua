-- Says whether Redis tells by itself what it has of a producer. What is in front of it is append.lua.
--
-- KEYS  stream
return set_window() and 1 or 0
