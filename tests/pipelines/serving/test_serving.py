"""The service through OpenAI's own client: its pictures are the pipeline's own, and its errors are OpenAI's."""

import base64
import io
import json
import urllib.request

import openai
import pytest
from PIL import Image
from running_server import client_of, running_server

from pipelines import TextToImagePipeline

KEY = "a key of many letters"
PROMPT = "an armchair"
BLANK = "\u2003\n"


@pytest.fixture(scope="module")
def address(tiny_folder):
    with running_server(
        TextToImagePipeline.from_pretrained(tiny_folder), KEY, max_n=3, max_prompt=50, max_body=2000, body_timeout=1
    ) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with client_of(address, KEY) as client:
        yield client


def picture(b64_json: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


def own(pipeline, prompt, **arguments) -> bytes:
    return pipeline(prompt, progress_bar=False, **arguments).images[0].tobytes()


def get(address: str, key: str | None = KEY) -> tuple[int, bytes, dict]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_pictures_are_the_pipelines_own_and_say_what_made_them(client, tiny_pipeline):
    answer = client.images.generate(prompt=PROMPT, n=3, model="armchair", extra_body={"seed": 5})
    assert [one.seed for one in answer.data] == [5, 6, 7]
    for one in answer.data:
        image = picture(one.b64_json)
        assert image.tobytes() == own(tiny_pipeline, PROMPT, seed=one.seed)
        assert (image.text["prompt"], image.text["seed"]) == (PROMPT, str(one.seed))
        assert json.loads(image.text["sampling"])["top_k"] == 20
        assert one.url is None
    assert (answer.size, answer.output_format, answer.background) == ("16x16", "png", "opaque")
    tokens = int((tiny_pipeline.encode_prompt(PROMPT) != 0).sum())
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (tokens, 3 * 16)


def test_without_a_seed_the_answer_names_it(client):
    first, second = (client.images.generate(prompt="a red apple").data[0] for _ in range(2))
    assert first.seed != second.seed
    again = client.images.generate(prompt="a red apple", extra_body={"seed": first.seed}).data[0]
    assert again.b64_json == first.b64_json != second.b64_json


def test_a_picture_by_its_address(client, address, tiny_pipeline):
    answer = client.images.generate(prompt="a red apple", response_format="url", n=2, extra_body={"seed": 1})
    urls = [one.url for one in answer.data]
    assert len(set(urls)) == 2 and all(url.startswith(f"{address}/pictures/") for url in urls)
    status, data, headers = get(urls[0], key=None)  # as from OpenAI, the address is enough
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(data)).tobytes() == own(tiny_pipeline, "a red apple", seed=1)
    status, data, _ = get(f"{address}/pictures/{'x' * 32}.png", key=None)
    assert (status, json.loads(data)["error"]["code"]) == (404, "not_found")


def test_settings_of_a_request(client, tiny_pipeline):
    given = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.01, "guidance_scale": 3.0}
    extra = {"seed": 2, "negative_prompt": "two cats", **given}
    answer = client.images.generate(prompt="a red apple", extra_body=extra)
    image = picture(answer.data[0].b64_json)
    assert image.tobytes() == own(tiny_pipeline, "a red apple", **extra)
    assert image.tobytes() != own(tiny_pipeline, "a red apple", seed=2, **given)
    assert given.items() <= json.loads(image.text["sampling"]).items()
    assert image.text["negative_prompt"] == "two cats"


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_size_and_format(client, output_format):
    answer = client.images.generate(
        prompt="a red apple", size="256x256", output_format=output_format, output_compression=80
    )
    image = picture(answer.data[0].b64_json)
    assert (image.format, image.size) == (output_format.upper(), (256, 256))
    assert (answer.output_format, answer.size) == (output_format, "256x256")


def test_a_long_prompt_is_cut_and_the_answer_tells(client):
    prompt = "A small sailboat above a large avocado beside it"
    revised = client.images.generate(prompt=prompt).data[0].revised_prompt
    assert prompt.lower().startswith(revised) and 0 < len(revised) < len(prompt)


def test_a_stream_of_partial_pictures(client, tiny_pipeline):
    with client.images.generate(
        prompt=PROMPT, stream=True, partial_images=3, extra_body={"seed": 4, "top_k": 3}
    ) as stream:
        *partial, last = list(stream)
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 3
    assert [event.partial_image_index for event in partial] == [0, 1, 2]
    assert last.type == "image_generation.completed"
    assert last.usage.output_tokens == 16
    images = [picture(event.b64_json) for event in (*partial, last)]
    assert len({image.tobytes() for image in images}) == 4
    grown = list(tiny_pipeline.stream(PROMPT, every=4, seed=4, top_k=3, progress_bar=False))
    assert [image.tobytes() for image in images] == [output.images[0].tobytes() for output in grown]


def test_a_stream_without_partial_pictures_is_one_event(client):
    with client.images.generate(prompt=PROMPT, stream=True) as stream:
        assert [event.type for event in stream] == ["image_generation.completed"]


def test_models(client):
    assert [model.id for model in client.models.list()] == ["armchair"]
    assert client.models.retrieve("armchair").object == "model"
    for ask in (client.models.retrieve, lambda name: client.images.generate(prompt=PROMPT, model=name)):
        with pytest.raises(openai.NotFoundError) as error:
            ask("dall-e/3")
        assert error.value.code == "model_not_found"


@pytest.mark.parametrize("key", ["", "wrong", KEY + " ", f"{KEY}é".encode().decode("latin-1"), None])
def test_a_wrong_key(address, key):
    expected = 200 if key == KEY + " " else 401  # white space around a header's value is no part of it
    status, data, _ = get(f"{address}/v1/models", key)
    assert status == expected
    if status == 401:
        assert json.loads(data)["error"]["code"] == "invalid_api_key"


def test_a_wrong_key_in_the_client(address):
    with client_of(address, "wrong") as client, pytest.raises(openai.AuthenticationError):
        client.images.generate(prompt=PROMPT)


def test_health_and_metrics(client, address):
    client.images.generate(prompt=PROMPT, n=2)
    status, data, _ = get(f"{address}/health", key=None)
    assert (status, json.loads(data)) == (200, {"status": "ok", "waiting": 0})
    with urllib.request.urlopen(urllib.request.Request(f"{address}/health", method="HEAD"), timeout=20) as head:
        assert (head.status, head.read()) == (200, b"")
    assert get(f"{address}/metrics", key=None)[0] == 401
    status, data, _ = get(f"{address}/metrics")
    lines = dict(line.rsplit(" ", 1) for line in data.decode().splitlines() if not line.startswith("#"))
    assert status == 200
    assert float(lines['armchair_requests_total{route="generate_images",status="200"}']) >= 1
    assert float(lines["armchair_pictures_total"]) >= 2
    assert float(lines["armchair_waiting_pictures"]) == 0


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": BLANK}, "prompt"),
        ({"prompt": "x" * 51}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 4}, "n"),
        ({"size": "16"}, "size"),
        ({"size": "32x16"}, "size"),
        ({"size": "2048x2048"}, "size"),
        ({"response_format": "png"}, "response_format"),
        ({"output_format": "gif"}, "output_format"),
        ({"background": "transparent"}, "background"),
        ({"partial_images": 1}, "partial_images"),
        ({"stream": True, "n": 2}, "n"),
        ({"stream": True, "response_format": "url"}, "response_format"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"extra_body": {"seed": -1}}, "seed"),
        ({"extra_body": {"seed": 2**63}}, "seed"),
        ({"extra_body": {"seed": 2**63 - 1}, "n": 2}, "seed"),
        ({"extra_body": {"top_k": 33}}, "top_k"),
        ({"extra_body": {"top_p": 0}}, "top_p"),
        ({"extra_body": {"temperature": "hot"}}, "temperature"),
        ({"extra_body": {"guidance_scale": -0.5}}, "guidance_scale"),
        ({"extra_body": {"guidance_scale": 1e300}}, "guidance_scale"),
        ({"extra_body": {"negative_prompt": ""}}, "negative_prompt"),
        ({"extra_body": {"negative_prompt": "cats", "guidance_scale": 1}}, "negative_prompt"),
        ({"extra_body": {"tempreature": 1}}, "tempreature"),
    ],
)
def test_what_cannot_be_used_is_a_bad_request(client, arguments, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(**{"prompt": PROMPT, **arguments})
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"


def test_null_is_the_default(client, tiny_pipeline):
    names = ["model", "n", "size", "response_format", "output_format", "output_compression", "stream", "quality"]
    nulls = dict.fromkeys([*names, "partial_images", "temperature", "top_k", "top_p", "guidance_scale", "style"])
    answer = client.post("/images/generations", body={"prompt": PROMPT, "seed": 0, **nulls}, cast_to=object)
    assert picture(answer["data"][0]["b64_json"]).tobytes() == own(tiny_pipeline, PROMPT, seed=0)
