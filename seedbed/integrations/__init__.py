"""Callbacks for trainers of others, so that a script which uses one is a run of a study: one file per trainer.

from seedbed.integrations.transformers import SeedbedCallback    # the Trainer of Hugging Face
from seedbed.integrations.lightning import SeedbedCallback       # PyTorch Lightning
"""
