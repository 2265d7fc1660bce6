"""From data files of several shapes to de-duplicated chats in three splits."""
