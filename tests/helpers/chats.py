"""What the shared project is prepared from: a stage refuses data that its configuration does not ask for."""

CHATS = ["data.files=[chats.jsonl]", "data.questions=null", "data.validation=8", "data.test=8", "data.seed=0"]
