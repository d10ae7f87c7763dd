"""A language model's tokenizer of letters alone, with special tokens for a chat, and one that puts prompts into it."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from prior_transformer import ChatTokenizer

BOS, EOS, PAD, PICTURE, BEGIN, END = "<bos>", "<eos>", "<pad>", "<picture>", "<begin>", "<end>"
SPECIAL = [BOS, EOS, PAD, PICTURE, BEGIN, END, "<|User|>", "<|Assistant|>"]
TEMPLATE = BOS + "<|User|>: {prompt}\n\n<|Assistant|>:" + BEGIN


def letters(special: list[str] = SPECIAL) -> Tokenizer:
    """A byte-level BPE whose merges make " a" and "at"; ids 0.. are the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet, "Ġa", "at"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "a"), ("a", "t")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def chat_tokenizer(text_length: int = 32, template: str = TEMPLATE) -> ChatTokenizer:
    return ChatTokenizer(tokenizer_object=letters(), pad_token=PAD, model_max_length=text_length, template=template)
