//! Messages between nodes. Each service is one stream a request; frames are JSON with a length
//! in front, rosters inside them are the bytes that their owner signed.
