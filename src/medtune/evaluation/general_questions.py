"""The questions of the general probe: nothing of medicine, one short answer each, the words medtune's own.

Text questions come in English and in Chinese; they are no translations of each other. The pictures are drawn
(:func:`medtune.evaluation.general.draw`), and each is asked about in both languages.
"""

from __future__ import annotations

__all__ = ["CHINESE", "DRAWINGS", "ENGLISH", "Question"]

Question = tuple[str, tuple[str, ...]]
"""The question, and the answers that are right: a number as digits, or words in small letters."""

ENGLISH: tuple[Question, ...] = (
    ("What is 17 plus 26? Answer with the number only.", ("43",)),
    ("What is 9 times 12? Answer with the number only.", ("108",)),
    ("What is 144 divided by 6? Answer with the number only.", ("24",)),
    ("What is 100 minus 37? Answer with the number only.", ("63",)),
    ("How many minutes are in two and a half hours? Answer with the number only.", ("150",)),
    ("A shirt costs 40 euros and is sold at half price. How many euros is that? Answer with the number only.", ("20",)),
    ("Which number comes next: 3, 6, 12, 24? Answer with the number only.", ("48",)),
    ("How many legs do three spiders have together? Answer with the number only.", ("24",)),
    ("How many months have exactly 28 or 29 days? Answer with the number only.", ("1",)),
    ("Which number is largest: 0.7, 0.65 or 0.08? Answer with the number only.", ("0.7",)),
    ("What is the capital of Japan? Answer with one word.", ("tokyo",)),
    ("On which continent does Egypt lie? Answer with one word.", ("africa",)),
    ("Which planet is closest to the sun? Answer with one word.", ("mercury",)),
    ("Which gas do plants take from the air to grow? Answer with its name.", ("carbon dioxide", "co2")),
    ("What is frozen water called? Answer with one word.", ("ice",)),
    ("Which metal is liquid at room temperature? Answer with one word.", ("mercury", "quicksilver")),
    ("Which day follows the day after Monday? Answer with one word.", ("wednesday",)),
    ("What is the plural of 'mouse', the animal? Answer with one word.", ("mice",)),
    ("What is the past tense of 'to bring'? Answer with one word.", ("brought",)),
    ("Write the word 'lamp' backwards.", ("pmal",)),
    ("Which word is no fruit: apple, hammer, pear, plum? Answer with one word.", ("hammer",)),
    ("What is the opposite of 'early'? Answer with one word.", ("late",)),
    ("Translate the French word 'livre' into English, in the sense of something to read. Answer with one word.", ("book",)),
    ("Anna is taller than Ben, and Ben is taller than Carl. Who is the shortest? Answer with the name.", ("carl",)),
    ("All roses are flowers. Is every flower therefore a rose? Answer yes or no.", ("no",)),
    ("Is a kilogram of feathers heavier than a kilogram of iron? Answer yes or no.", ("no",)),
    ("Today is the last day of April. Which month is it tomorrow? Answer with one word.", ("may",)),
    ("Which keyword begins a function definition in Python? Answer with the keyword only.", ("def",)),
    ("In Python, what does len('abcd') return? Answer with the number only.", ("4",)),
    ("Sort these letters in the order of the alphabet: d, a, c, b. Answer with the four letters, without blanks.", ("abcd",)),
)

CHINESE: tuple[Question, ...] = (
    ("25 加 38 等于多少？只回答数字。", ("63",)),
    ("7 乘以 13 等于多少？只回答数字。", ("91",)),
    ("81 除以 9 等于多少？只回答数字。", ("9",)),
    ("一打鸡蛋有多少个？只回答数字。", ("12",)),
    ("三角形的内角和是多少度？只回答数字。", ("180",)),
    ("小明有 15 颗糖，给了妹妹 6 颗，还剩多少颗？只回答数字。", ("9",)),
    ("接下来是哪个数：2、5、8、11？只回答数字。", ("14",)),
    ("一周有多少小时？只回答数字。", ("168",)),
    ("两只蜻蜓一共有多少条腿？只回答数字。", ("12",)),
    ("2000 年二月有多少天？只回答数字。", ("29",)),
    ("法国的首都是哪里？只回答城市名。", ("巴黎",)),
    ("中国最长的河流是哪一条？只回答名称。", ("长江", "扬子江")),
    ("太阳从哪个方向升起？只回答一个字。", ("东",)),
    ("地球唯一的天然卫星叫什么？", ("月球", "月亮")),
    ("水在标准大气压下多少摄氏度沸腾？只回答数字。", ("100",)),
    ("《红楼梦》的作者是谁？只回答姓名。", ("曹雪芹",)),
    ("“床前明月光”的下一句是什么？", ("疑是地上霜",)),
    ("“高兴”的反义词是什么？请从“难过、快乐、明亮”中选一个。", ("难过",)),
    ("“画蛇添”后面的一个字是什么？", ("足",)),
    ("哪一个不是动物：猫、桌子、狗、鸟？", ("桌子",)),
    ("把“好天气”三个字倒过来写。", ("气天好",)),
    ("英语单词 water 的中文意思是什么？只回答一个字。", ("水",)),
    ("甲比乙重，丙比甲重。谁最轻？只回答一个字。", ("乙",)),
    ("昨天是星期五，明天是星期几？", ("星期日", "星期天", "周日", "礼拜天")),
    ("所有的鸟都是动物，那么所有的动物都是鸟吗？请回答是或不是。", ("不是", "否")),
    ("春、夏、秋之后是哪个季节？只回答一个字。", ("冬",)),
    ("红色和黄色颜料混合得到什么颜色？", ("橙", "橘")),
    ("汉字“森”由几个“木”组成？只回答数字。", ("3",)),
    ("Python 中表示“真”的布尔值怎么写？只回答这个单词。", ("true",)),
    ("一米等于多少厘米？只回答数字。", ("100",)),
)

DRAWINGS: tuple[tuple[str, Question, Question], ...] = (
    (
        "red-circle",
        ("Which colour is the shape in the picture? Answer with one word.", ("red",)),
        ("图中的图形是什么颜色？", ("红",)),
    ),
    (
        "blue-square",
        ("Which shape is in the picture: circle, square or triangle? Answer with one word.", ("square",)),
        ("图中是什么形状：圆形、正方形还是三角形？", ("正方形", "方形")),
    ),
    (
        "green-triangle",
        ("Which shape is in the picture: circle, square or triangle? Answer with one word.", ("triangle",)),
        ("图中的图形是什么颜色？", ("绿",)),
    ),
    (
        "three-dots",
        ("How many dots are in the picture? Answer with the number only.", ("3",)),
        ("图中有几个圆点？只回答数字。", ("3",)),
    ),
    (
        "five-dots",
        ("How many dots are in the picture? Answer with the number only.", ("5",)),
        ("图中有几个圆点？只回答数字。", ("5",)),
    ),
    (
        "dot-above-line",
        ("Is the dot above or below the line? Answer with one word.", ("above",)),
        ("圆点在横线的上方还是下方？", ("上",)),
    ),
)
