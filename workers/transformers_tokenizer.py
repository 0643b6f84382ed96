"""The tokenizer of a task in the form of `transformers`: ids as the run saw them.

Bytes become a byte-level BPE without merges; a corpus's own tokenizer.json is taken as it is; the tokens of any other
task are words with spaces between them.
"""

from typing import Any

from jobs.tasks.task import Task
from jobs.tasks.text import Text
from jobs.text.tokenizer import END


def tokenizer_for(task: Task) -> Any:
    """Return a PreTrainedTokenizerFast whose ids are those of the task's vocabulary."""
    import transformers

    fast: Any = transformers.PreTrainedTokenizerFast
    end = END if isinstance(task, Text) else None
    made = _of_text(task) if isinstance(task, Text) else _of_words(task.vocabulary)
    return fast(tokenizer_object=made, eos_token=end, bos_token=end, model_max_length=task.length)


def _of_text(task: Text) -> Any:
    import tokenizers

    info, file = task.corpus_info, task.tokenizer_file()
    if file:
        made = tokenizers.Tokenizer.from_str(file.decode())
        made.no_truncation()
        made.no_padding()
    else:
        from tokenizers import decoders, models, pre_tokenizers

        made = tokenizers.Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    if made.token_to_id(END) != info.end:
        raise ValueError(f"the end of a document has the id {info.end}, and would become {made.token_to_id(END)}")
    return made


def _bytes() -> dict[str, int]:
    """Return the characters that stand for bytes, as in GPT-2: printable Latin-1 for itself, the rest from 256 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(rest)}


def _of_words(vocabulary: tuple[str, ...]) -> Any:
    import tokenizers
    from tokenizers import models, pre_tokenizers

    made = tokenizers.Tokenizer(models.WordLevel({token: number for number, token in enumerate(vocabulary)}))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made
