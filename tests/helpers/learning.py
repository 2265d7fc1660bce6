"""What visitors said, learnt as the stage learns it, in the working folder."""

from pathlib import Path
from typing import Any

from pipeline.core.composition import compose
from pipeline.core.config import LearnSettings, load
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.sources import kept_by
from pipeline.stages.learn import learn

CONF = Path(__file__).parents[2] / "conf"


def settings_of(**settings: Any) -> LearnSettings:
    """conf/'s, with some changed."""
    return load(compose(CONF, [f"learn.{key}={value}" for key, value in settings.items()])).learn


def learnt_from(**settings: Any) -> LearnManifest:
    """What comes of the folder or the dataset that settings name."""
    learn_settings = settings_of(**settings)
    kept = kept_by(learn_settings)
    assert kept
    return learn(kept, learn_settings, Path(), Path())
