"""What kind of picture a text speaks of, and of which organ."""

from __future__ import annotations

from functools import cache

from medtune.tasks.reading.assertions.tokens import Trie, phrases, tokenize

__all__ = ["is_part_of", "read_modality", "read_organ"]

_MODALITIES: dict[str, tuple[str, ...]] = {
    "CT": ("ct", "cat scan", "computed|computerized tomography|tomographic", "计算机断层", "断层扫描"),
    "MR": ("mr", "mri", "magnetic resonance", "flair", "磁共振", "核磁", "核磁共振"),
    "DX": ("dx", "cr", "dr", "xr", "x ray", "xray", "radiograph|radiography|radiographic", "plain film", "chest film", "胸片",
           "平片", "x 线 片?", "x 光 片?"),
    "US": ("us image|scan|examination", "ultrasound|ultrasonography|ultrasonic", "sonogram|sonography|sonographic",
           "echocardiogram|echocardiography", "超声", "b 超", "彩超"),
    "PT": ("pet", "pet ct", "pet mri|mr", "positron emission"),
    "MG": ("mammogram|mammography|mammographic", "钼靶", "乳腺 x 线"),
    "SM": ("histology|histologic|histological|histopathology|histopathologic|histopathological", "microscopy|microscopic",
           "micrograph|photomicrograph", "h e stain|stained?", "hematoxylin", "病理切片", "组织切片", "显微"),
    "ES": ("endoscopy|endoscopic|colonoscopy|gastroscopy", "内镜", "胃镜", "肠镜"),
    "OP": ("fundus photograph|photography|image?", "fundoscopy", "眼底 照相|照片|彩照|图像"),
    "OPT": ("oct", "optical coherence", "光学相干"),
    "XA": ("angiogram", "digital subtraction angiography", "dsa", "血管造影"),
}  # fmt: skip

_ORGANS: dict[str, tuple[str, ...]] = {
    "brain": ("brain", "head", "cranial|intracranial|cerebral|cerebrum", "skull", "frontal|temporal|parietal|occipital lobe",
              "cerebellum|cerebellar", "cerebral|left|right hemisphere", "basal ganglia", "脑", "头", "头颅", "颅脑",
              "颅", "颅内", "大脑", "小脑", "额叶", "颞叶", "顶叶", "枕叶", "基底节"),
    "lung": ("lung", "pulmonary", "肺", "双肺", "两肺"),
    "heart": ("heart", "cardiac", "心脏", "心影"),
    "chest": ("chest", "thorax|thoracic", "mediastinum", "pleura|pleural", "胸", "胸部", "胸腔", "纵隔"),
    "liver": ("liver", "hepatic", "肝", "肝脏"),
    "kidney": ("kidney", "renal", "肾", "肾脏", "双肾"),
    "spleen": ("spleen|splenic", "脾", "脾脏"),
    "pancreas": ("pancreas|pancreatic", "胰", "胰腺"),
    "gallbladder": ("gallbladder", "胆囊"),
    "bowel": ("bowel", "colon|colonic", "intestine|intestinal", "rectum|rectal", "结肠", "直肠", "肠", "小肠"),
    "stomach": ("stomach", "gastric", "胃"),
    "abdomen": ("abdomen|abdominal", "腹", "腹部", "腹腔"),
    "pelvis": ("pelvis|pelvic", "盆腔", "骨盆"),
    "bladder": ("bladder", "膀胱"),
    "prostate": ("prostate|prostatic", "前列腺"),
    "uterus": ("uterus|uterine", "子宫"),
    "spine": ("spine|spinal", "vertebra|vertebral|vertebrae", "lumbar|cervical", "脊柱", "腰椎", "颈椎", "胸椎", "椎体"),
    "breast": ("breast", "乳腺"),
    "thyroid": ("thyroid", "甲状腺"),
    "neck": ("neck", "颈部"),
    "eye": ("eye", "retina|retinal", "fundus", "optic", "眼", "视网膜", "眼底"),
    "skin": ("skin", "cutaneous", "dermal", "皮肤"),
    "knee": ("knee", "膝", "膝关节"),
    "shoulder": ("shoulder", "肩", "肩关节"),
    "hip": ("hip joint?", "髋", "髋关节"),
    "hand": ("hand", "wrist", "手", "腕"),
    "foot": ("foot", "ankle", "足", "踝"),
}  # fmt: skip
_WHOLE = {"lung": "chest", "heart": "chest"} | dict.fromkeys(
    ("liver", "kidney", "spleen", "pancreas", "gallbladder", "bowel", "stomach"), "abdomen"
) | dict.fromkeys(("bladder", "prostate", "uterus"), "pelvis")  # fmt: skip


def read_modality(text: str) -> str | None:
    """The DICOM modality code of the only modality that ``text`` names; None where it names none, or several ("CT or MRI")."""
    named = {payloads[0] for _, _, _, payloads in _trie("modality").find(tokenize(text))}
    return named.pop() if len(named) == 1 else None


def read_organ(text: str) -> str | None:
    """The organ or region that ``text`` names first: ``brain`` for the head and everything in it, ``lung``, ``abdomen``, ..."""
    for _, _, _, payloads in _trie("organ").find(tokenize(text)):
        return payloads[0]
    return None


def is_part_of(organ: str | None, whole: str) -> bool:
    """Whether ``organ`` is ``whole`` or lies in it: the liver lies in the abdomen, not the other way round."""
    return organ is not None and whole in (organ, _WHOLE.get(organ))


@cache
def _trie(of: str) -> Trie[str]:
    table = _MODALITIES if of == "modality" else _ORGANS
    return Trie((phrase, name) for name, patterns in table.items() for pattern in patterns for phrase in phrases(pattern))
