-- Put dead letters back into their queue, unless a message of the same id is kept there already.
-- KEYS: ready, messages, wake, dead, letters. ARGV: id, score, text; and so on. Returns how many.
local back = 0
for i = 1, #ARGV, 3 do
  if redis.call('HEXISTS', KEYS[5], ARGV[i]) == 1 and redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 2]) == 1 then
    redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i])
    redis.call('ZREM', KEYS[4], ARGV[i])
    redis.call('HDEL', KEYS[5], ARGV[i])
    back = back + 1
  end
end
if back > 0 and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('LPUSH', KEYS[3], '1')
end
return back
