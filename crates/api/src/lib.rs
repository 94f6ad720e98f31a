//! The REST and WebSocket surface: Net API v1 and v2, Activity API, and the additions, with their OpenAPI document.
