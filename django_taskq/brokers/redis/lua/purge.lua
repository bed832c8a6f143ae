-- Throw away the next messages that wait. KEYS: ready, messages, wake. ARGV: at most. Returns how many.
local ids = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)
if #ids > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #ids - 1)
  redis.call('HDEL', KEYS[2], unpack(ids))
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[3])
end
return #ids
