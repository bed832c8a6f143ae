-- Put a message that this process holds under this claim with the dead letters.
-- KEYS: messages, held, holders, dead, letters. ARGV: process, id, claim, reason, at most dead letters.
-- Returns whether it was held. A dead letter is "reason LF text"; the oldest beyond the limit are thrown away.
if redis.call('ZSCORE', KEYS[2], ARGV[2]) ~= ARGV[3] then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[2])  -- frees memory first, as in take.lua
local text = redis.call('HGET', KEYS[1], ARGV[2]) or ''
redis.call('HDEL', KEYS[1], ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[3], ARGV[1])
end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[4], now[1] .. '.' .. string.format('%06d', now[2]), ARGV[2])
redis.call('HSET', KEYS[5], ARGV[2], ARGV[4] .. '\n' .. text)
local excess = math.min(redis.call('ZCARD', KEYS[4]) - ARGV[5], 100)
if excess > 0 then
  local oldest = redis.call('ZRANGE', KEYS[4], 0, excess - 1)
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, excess - 1)
  redis.call('HDEL', KEYS[5], unpack(oldest))
end
return 1
