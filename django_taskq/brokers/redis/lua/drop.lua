-- Forget messages that this process still holds under these claims.
-- KEYS: messages, held, holders. ARGV: process; id, claim; and so on. Returns how many.
local ids = {}
for i = 2, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
end
local claims = redis.call('ZMSCORE', KEYS[2], unpack(ids))
local mine = {}
for i = 1, #ids do
  if claims[i] == ARGV[2 * i + 1] then
    mine[#mine + 1] = ids[i]
  end
end
if #mine > 0 then
  redis.call('ZREM', KEYS[2], unpack(mine))
  redis.call('HDEL', KEYS[1], unpack(mine))
  if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('ZREM', KEYS[3], ARGV[1])
  end
end
return #mine
