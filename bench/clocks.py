import sys,array
C=int(sys.argv[3]) if len(sys.argv)>3 else 16
W=256*132*C
data=open(sys.argv[1],'rb').read(); n=len(data)//(W*8)
recs=[int(x) for x in sys.argv[2].split(',')]
order=[0,1,2,10,11,3,4,5,14,7,8,6]
names={0:'start',7:'fin1',8:'fin2',9:'copied',1:'asked',2:'released',10:'hidden',11:'norm',3:'staged',12:'full',13:'tile',4:'mult',5:'synced',14:'summed',6:'end'}
for r in recs:
    a=array.array('Q'); a.frombytes(data[r*W*8:(r+1)*W*8])
    def g(grid,b,w): return a[(grid*132+b)*C+w]
    layers=22 if r<6 else 32
    print('==',r,['t-raw','t-packed','8-raw','8-packed'][r//3])
    acc={}; prev=None; tot=0
    for L in range(1,layers):
        for k,gn in enumerate(['qkv','attn','out','gate','down']):
            G=L*5+k
            bl=[b for b in range(132) if g(G,b,6)]
            if k==1:
                m=max(g(G,b,6) for b in bl); bl=[b for b in bl if m-g(G,b,6)<20000]
            e=max(g(G,b,6) for b in bl)
            if prev is not None:
                for w in order:
                    v=[g(G,b,w)-prev for b in bl if abs(g(G,b,w)-prev)<300000]
                    if v: acc.setdefault((gn,w),[]).append((min(v),sum(v)/len(v),max(v)))
            prev=e
    for gn in ['qkv','attn','out','gate','down']:
        line=f"{gn:5s}"
        for w in order:
            t=acc.get((gn,w))
            if not t: continue
            m=len(t)
            line+=f" {names[w]}: "+"/".join(f"{sum(x[i] for x in t)/m/1000:.2f}" for i in range(3))
        tot+=sum(x[2] for x in acc[(gn,6)])/len(acc[(gn,6)])/1000
        print(line)
    print('layer us',round(tot,2))
