"""A searchable collection of videos: indexed once, searched by words, pictures and clips."""
