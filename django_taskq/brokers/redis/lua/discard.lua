-- Throw dead letters away. KEYS: dead, letters. ARGV: ids. Returns how many there were.
redis.call('HDEL', KEYS[2], unpack(ARGV))
return redis.call('ZREM', KEYS[1], unpack(ARGV))
