-- The texts of the messages that wait, in the order in which they will be taken.
-- KEYS: ready, messages. ARGV: rank of the first, at most messages, at most bytes.
local ids = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)
local texts, room = {}, tonumber(ARGV[3])
for i = 1, #ids do
  local text = redis.call('HGET', KEYS[2], ids[i]) or ''
  texts[i] = text
  room = room - #text
  if room < 0 then
    break
  end
end
return texts
