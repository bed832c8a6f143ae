-- Keep messages, unless a message of the same id is kept already, waiting or held.
-- KEYS: ready, messages, wake. ARGV: id, score, text; and so on. Returns how many were new.
--
-- HSETNX comes first: where memory is full it is refused, and then nothing at all has happened.
local fresh = {}
for i = 1, #ARGV, 3 do
  if redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 2]) == 1 then
    fresh[#fresh + 1] = ARGV[i + 1]
    fresh[#fresh + 1] = ARGV[i]
  end
end
if #fresh > 0 then
  redis.call('ZADD', KEYS[1], unpack(fresh))
  -- One token at most: one of those who wait is told, and tells the next by what it leaves (see take.lua).
  if redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('LPUSH', KEYS[3], '1')
  end
end
return #fresh / 2
